//! Each model as a test.

macro_rules! models {
    ($($part:ident: $($model:ident),+;)+) => {
        $($(
            #[test]
            fn $model() {
                commissaire_loom::$part::$model();
            }
        )+)+
    };
}

models! {
    subscription:
        no_more_is_in_hand_than_there_are_places,
        two_places_are_freed_by_two,
        who_leaves_gives_all_back,
        no_item_is_lost_and_no_wake_either,
        what_comes_while_the_consumer_leaves_is_released,
        gaps_never_stand_side_by_side;
    client:
        each_call_gets_its_own_answer,
        an_answer_that_comes_twice_counts_once,
        a_call_ends_by_its_answer_or_by_a_lost_connection,
        a_call_that_is_dropped_is_forgotten;
    service:
        a_drain_with_grace_finishes_what_was_begun,
        a_drain_without_grace_gives_all_back,
        a_service_that_is_dropped_ends;
}
